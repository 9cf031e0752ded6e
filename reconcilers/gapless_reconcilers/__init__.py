"""Everything that Gapless knows about vendors: one pure module per provider, and the kit that they share."""
