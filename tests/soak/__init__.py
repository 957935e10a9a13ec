"""A server under a steady load for a long time, whose memory must not grow (``make soak``)."""
