"""The base class of all errors that a user can mend."""


class UserError(ValueError):
    """What the user can mend; the message names the file, line or key, what is wrong with it, and the remedy.

    The scripts print it as one line and leave with status 2; any other exception is a defect of ours and keeps its
    traceback.
    """
