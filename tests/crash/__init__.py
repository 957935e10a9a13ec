"""Kill a server under load, again and again, and see that nothing it acknowledged is amiss."""
