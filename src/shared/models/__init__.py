"""The models that an application gets which brings none of its own."""
