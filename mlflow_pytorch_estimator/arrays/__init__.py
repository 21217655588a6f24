"""Arrays: many jobs of one project that differ in their parameters alone, submitted as one, and the run above them."""
