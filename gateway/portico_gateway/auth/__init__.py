"""Who somebody is and what they may do: accounts, sign-ins, tokens, and one `authorise()` for every door."""
