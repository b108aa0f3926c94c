"""What a person sees: progress, results and errors."""
