"""Load on the whole chain: items due at instants fixed beforehand, latency counted from these.

The scenarios are named as in MLPerf Inference (Reddi et al. 2020, arXiv:1911.02549) by the traffic:
``single-stream``, ``server``, ``offline``; ``find-peak`` looks for the highest rate of a server.
"""
