"""What an analyst sees of a whole tenant at once: who is central, who belongs together. The way of one refresh:

    registry.find("pagerank")               an Overlay: compute, annotate, summarise     (definition, pagerank, louvain)
    refresh.refresh(overlay, input, …)      settle what a crash left → number → compute → gate → plan → append → done
      write_back.plan                       pure: the top K of each case and of the tenant → records and floors
      mapping                               scores → named entities, top K
      results                               ranks, top-K and plan on disk; the plan is the point of no return
    freshness.freshness(as_of, now, …)      every value says when it is from, and when that is too old

Values go through the event log as records of a source `overlay/<name>`: they annotate, and never make visible.
"""
