"""An example of a plugin: one check of a company's own, one that crashes, and one module that cannot be imported."""
