"""The built-in checks of vllm-doctor: one module per family, found through the entry points as any plugin is."""
