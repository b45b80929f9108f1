HANDLERS = {"stack_overflow": False, "solutions": False}
