"""What many tests share."""

from qtcore import Params

PUBLISHED = Params.profile("published")  # whose numbers the tests know; the fields' own defaults may change
FLAG = "--profile=published"  # the same of a command
