"""What is measured, as data: operations, sizes, and the forms of both sides."""

import paths as paths
