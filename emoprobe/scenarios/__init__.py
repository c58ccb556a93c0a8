"""What a subject is asked and how it is answered: certified puzzles, feedback and questions as data."""
