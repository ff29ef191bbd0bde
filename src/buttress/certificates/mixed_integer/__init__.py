"""Networks of linear pieces as mixed-integer linear programs."""
