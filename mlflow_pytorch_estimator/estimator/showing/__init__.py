"""What a person sees of a run outside of MLflow's pages: read within bounds, drawn as HTML, SVG or plain text."""
