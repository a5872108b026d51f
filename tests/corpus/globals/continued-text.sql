SELECT E'a'
'\'' ; \! id 
 --';