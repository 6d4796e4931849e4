"""Networks of timm, torchvision and any other source, cut into stages."""
