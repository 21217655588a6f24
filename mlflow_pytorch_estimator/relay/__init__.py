"""MLflow for ranks whose node cannot reach the tracking store: through the job directory, which both sides share.

On the node a small HTTP server (``door``) is their tracking server. What they say is appended to a file (``calls``);
the submit side sends it on, in order and in batches (``batches``, ``forward``), and writes down the answers that
somebody waits for. Logging has its answer at once: a store that is away holds up no training, and nothing is lost.
"""
