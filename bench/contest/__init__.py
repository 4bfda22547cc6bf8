"""All models, and what a user would try first, judged on the same patterns and labels."""
