"""DINOv3 with a head of choice: a Vision Transformer that learnt from 1.7 billion images without labels."""
