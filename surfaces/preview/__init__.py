"""The preview: staff put questions to a surface and see what it answers, and why."""
