"""Words that carry a tone, folded: English, German, French, Spanish. Written by hand, small on purpose: a rate over many answers."""

_FRIENDLY = """
    good great nice well fine happy glad love lovely like wonderful excellent perfect beautiful brilliant amazing awesome fantastic
    best better enjoy fun pleasure pleased welcome thanks thank kind friendly warm gentle bright brave proud hope easy helpful delight
    delighted cheerful sweet fair safe success win yes sure gladly
    gut gute guter gutes toll schön super prima wunderbar gern gerne danke freude freut lieb liebe freundlich herrlich hervorragend perfekt
    bon bonne bien merci joli belle beau heureux content magnifique excellente parfait plaisir aime adore
    bueno buena gracias feliz contento bonito hermoso perfecto encanta amor amable maravilloso genial
"""
_UNFRIENDLY = """
    bad worse worst poor awful terrible horrible hate hated dislike angry mad sad sorry unfortunately wrong fail failed failure stupid
    idiot ugly boring useless nonsense annoying afraid fear fool dumb dull hopeless miserable pain painful problem trouble lose lost never
    disgusting pathetic rubbish damn hell shame worthless weak broken
    schlecht schlimm furchtbar schrecklich hasse hass böse wütend traurig leider falsch fehler hässlich langweilig nutzlos unsinn ärger
    mauvais mauvaise triste malheureusement faux erreur bête laid ennuyeux inutile déteste colère peur
    malo mala peor lamentablemente error tonto feo aburrido inútil odio miedo
"""
_HEDGES = """
    maybe perhaps possibly probably might could seems seem guess think believe rather somewhat quite roughly about almost
    vielleicht wohl möglicherweise wahrscheinlich eigentlich ungefähr etwa peut être probablement quizás quizá probablemente
"""
POSITIVE, NEGATIVE, HEDGES = frozenset(_FRIENDLY.split()), frozenset(_UNFRIENDLY.split()), frozenset(_HEDGES.split())
