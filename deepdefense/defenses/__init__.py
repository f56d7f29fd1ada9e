"""What training minimises: Deep Defense, and the defences it is compared with."""
