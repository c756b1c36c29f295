"""MultVAE and its mixtures, WL, MoE, LMoE and TALL, with their trainer and the compiled index."""
