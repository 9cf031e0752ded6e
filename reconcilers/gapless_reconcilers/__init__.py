"""What Gapless knows of each vendor: one module per provider, all of them pure, and the kit that they share."""
