"""ramify: structured LM programs in Python, compiled for prefix sharing and run on a radix KV cache."""

if __name__ != "ramify":  # the folder itself is not importable under another name
    raise ImportError("import ramify, not its folder")

__version__ = "0.1.0"
