"""Complete case studies: each takes raw telemetry to trained models with the library's parts."""
