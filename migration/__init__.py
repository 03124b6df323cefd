"""The migration of one collection and its proof. Contains neither Faust nor the command line."""
