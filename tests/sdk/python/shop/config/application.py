NAME = "Shop"
KEY = "lNkx_7Z3Xx3oZr5L8dPoOh8lCVvqzXq3s7hJb4o1TfA="
DEBUG = True
