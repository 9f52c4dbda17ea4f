"""The shell that runs graph algorithms on Ray. The way of one run:

    OverlayInput            which files hold a tenant's graph, and who is in it          (input, edge_list)
      → row_groups.plan     Ray Data reads the footers: references to row groups         (row_groups)
      → pool                named partition actors, kept warm between runs               (pool, partition)
      → pagerank_job        load slices, exchange ranks through the object store, write  (pagerank_job)
      → louvain_job         one actor, the whole graph                                   (louvain_job)
    backends                the same jobs on CPU or GPU, behind one interface

Actors hold copies of what is in files and nothing else: a job whose actor dies begins again from the files.
"""
