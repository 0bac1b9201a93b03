"""Sessions simulated: paths, viewers, content, controllers."""
