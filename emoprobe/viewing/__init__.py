"""What a person sees: figures, coloured transcripts, one HTML page. No torch; needs a run's tables only."""
