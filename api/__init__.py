"""HTTP, command line and client; no rule of the business is made here."""
