"""DINOv2 with a head of choice: a Vision Transformer that learnt from 142 million images without labels."""
