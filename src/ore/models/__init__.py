"""The models that come with ORE, as files: `ore-tiny.gguf`. How it was made stands in `training/`."""
