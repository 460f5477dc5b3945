"""What an OpenAI-compatible client meets: the steps it takes, and which of them breaks, asked of a live server."""
