"""Jobs over snapshots: compaction, snapshots, verification, graph algorithms, write-back; arrays in `kernels/`."""
