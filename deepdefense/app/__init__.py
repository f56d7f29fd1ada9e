"""Everything that touches a disk, a terminal or a page: jobs, data, runs, pages, study, cli."""
