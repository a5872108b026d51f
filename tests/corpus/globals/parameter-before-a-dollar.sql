SELECT $1$a$ ' $a$ \! id '
;