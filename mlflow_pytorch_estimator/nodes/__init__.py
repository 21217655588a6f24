"""The nodes of a job: the ranks of this one, the agents of the others, and how the first node's agent leads them."""
