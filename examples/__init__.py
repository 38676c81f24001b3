"""Programs that are tools: each folder is one, with its command line, its data, its evaluation and a page in docs/."""
