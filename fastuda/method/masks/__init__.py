"""Which source pixels are pasted onto the target, where that is not by class: a file each, with its `MASK`."""
