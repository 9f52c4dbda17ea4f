"""Graph algorithms on plain arrays; no Ray, no files, no clients. The path through them:

    src, dst: int64[E]  ──csr.build_csc──►  Adjacency (offsets, indices, weights)
                                              │ csr.partition_by_edges: ranges of destinations for partition actors
                                              ▼
         pagerank.pagerank            one process: all ranges on threads
         pagerank.pull_range          one range of one iteration: what a partition actor calls
         pagerank.settle              after each iteration: contributions, dangling mass, residual
                                              │
    src, dst  ──undirected.merge──►  louvain.louvain ──► communities, each named by its least vertex
                                              ▼
         topk.top_k ──► stability.stability_gate ──► may this run be written back?

    order, codes, lookup         what a snapshot is made with: rows in order, columns of few values, rows by a hash

Vertices are 0..n-1 everywhere. Equal input gives equal bits, whatever the number of threads or partitions.
Threads are plain Python threads around kernels that release the interpreter lock: no numba threading layer
is needed, so nothing depends on which of tbb, OpenMP or workqueue a machine has, and forking stays safe.
"""
