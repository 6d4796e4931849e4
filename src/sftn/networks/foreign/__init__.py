"""Networks of others (timm, torchvision, any module), cut into stages."""
