"""The file cannot be imported: a module of it is not there."""

import no_such_module_of_the_shop               # HERE

application = no_such_module_of_the_shop.application
