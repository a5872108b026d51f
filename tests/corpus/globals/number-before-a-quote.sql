SELECT 1e'\'' ; \! id 
 --';