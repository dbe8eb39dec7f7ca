"""The Python side of Gust: zygotes, parser, callbacks and triggerer, all owned by one Rust process."""
