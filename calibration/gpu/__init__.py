"""The reduction on a torch device: the sums of the parent package, for batches, in torch.

The same code runs on a CPU, where its tests compare it with the parent package. A pattern may
differ from that package's, and from its own in another batch, by rounding: less than 1e-5 of its
maximum. Nothing here has been run on a CUDA device yet.
"""
