"""What a submission would do, for people: nothing here creates anything."""
