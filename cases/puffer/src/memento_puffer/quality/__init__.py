"""What viewers got: stalls, SSIM, and their intervals."""
