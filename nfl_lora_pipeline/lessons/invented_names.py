"""Invented people. No list of real players is read: common given names and surnames, and syllables for the rest."""

import random

FIRST = """Aaron Adam Alec Amari Andre Antoine Ashton Austin Barrett Ben Blake Brady Brandon Brennan Brent Brett Brian
Bryce Byron Cade Caleb Calvin Cameron Carl Carson Carter Cedric Chad Chase Chris Clay Cole Colin Connor Cooper Corey
Curtis Dallas Damon Dante Darius Darnell Darren David Davis Dax Deion Demario Deon Derek Derrick Devin Dillon Dominic
Donovan Drake Drew Dustin Dylan Earl Eddie Eli Elijah Emmett Eric Ethan Evan Felix Frank Gabe Garrett Gavin George Grant
Greg Hakeem Hank Harold Hayden Henry Hunter Ian Isaac Isaiah Jace Jack Jackson Jacob Jahan Jake Jalen Jamal James Jared
Jason Javon Jaylen Jeff Jeremy Jermaine Jerome Jesse Joe Joel John Jordan Joseph Josh Julian Justin Kadarius Kareem Keith
Kendall Kendrick Kenny Keon Kevin Khalil Kyle Lamar Lance Lawrence Leo Levi Logan Lonnie Louis Lucas Luke Malachi Malik
Marcus Mario Mark Marlon Marquez Marvin Mason Matt Maurice Max Micah Michael Mike Miles Mitchell Nate Nathan Nelson Nick
Noah Noel Odell Omar Oscar Owen Parker Patrick Paul Percy Peter Phil Quentin Quincy Ralph Randall Rashad Ray Reggie Rhett
Ricky Robert Rodney Roman Romeo Ron Roy Russell Ryan Sam Scott Sean Seth Shane Sidney Simon Spencer Stefon Stephen Sterling
Steve Tanner Tariq Taylor Terrance Terrell Terry Theo Thomas Tim Todd Tony Travis Trent Trey Tristan Troy Tyler Tyrell
Tyrone Vernon Victor Vincent Wade Walter Warren Wayne Wes Will Xavier Zach Zane""".split()

LAST = """Abbott Adams Alexander Allen Anderson Andrews Armstrong Atkins Austin Bailey Baker Baldwin Banks Barber Barnes
Barrett Bates Battle Beasley Bell Bennett Benson Berry Bishop Black Blair Boone Bowman Boyd Bradley Brady Briggs Brooks
Brown Bryant Buchanan Burke Burns Burton Butler Byrd Cain Caldwell Campbell Cannon Carpenter Carr Carter Castillo Chambers
Chapman Chandler Clark Clayton Coleman Collins Conley Conner Cook Cooper Craig Crawford Cross Cruz Cunningham Curry Daniels
Davidson Davis Dawson Dean Dennis Diaz Dixon Dorsey Douglas Doyle Drake Duncan Dunn Eaton Edwards Elliott Ellis Evans
Farmer Farrell Ferguson Fields Fisher Fleming Fletcher Flores Floyd Ford Foster Fowler Fox Francis Franklin Frazier Freeman
Fuller Gaines Garcia Gardner Garner Gates George Gibbs Gibson Gill Glenn Golden Goodwin Gordon Graham Grant Graves Gray
Green Greene Griffin Gross Hale Hall Hamilton Hammond Hampton Hansen Hardy Harmon Harper Harris Harrison Hart Harvey
Hawkins Hayes Haynes Henderson Henry Hicks Higgins Hill Hines Hobbs Hodges Holland Holmes Holt Hopkins Horton Houston Howard
Howell Hubbard Hudson Hughes Hunt Hunter Ingram Irwin Jackson Jacobs James Jefferson Jenkins Jennings Jensen Johnson
Johnston Jones Jordan Joseph Keith Keller Kelley Kelly Kennedy Kent Kerr King Kirk Klein Knight Knox Lamb Lambert Lane
Larson Lawson Lee Leonard Lester Lewis Lindsey Little Lloyd Logan Long Lopez Love Lowe Lucas Lynch Lyons Mack Malone Manning
Marsh Marshall Martin Martinez Mason Matthews Maxwell May McBride McCall McCarthy McClure McCoy McDaniel McDonald McGee
McGuire McKay McKenzie McKinley McLean McMillan Meyer Miles Miller Mills Mitchell Monroe Montgomery Moody Moore Morales
Moran Morgan Morris Morrison Morton Moses Moss Mueller Mullins Murphy Murray Myers Nash Neal Nelson Newman Newton Nichols
Nixon Nolan Norman Norris Norton Nunez Obrien Oliver Olsen Ortiz Osborne Owens Page Palmer Parker Parks Parsons Patrick
Patterson Patton Payne Perkins Perry Peters Peterson Phelps Phillips Pierce Pittman Poole Pope Porter Potter Powell Powers
Pratt Price Quinn Ramsey Randall Ray Reed Reese Reeves Reid Reyes Reynolds Rhodes Rice Richards Richardson Riley Rivera
Roberts Robertson Robinson Rodgers Rogers Rollins Rose Ross Rowe Russell Ryan Salazar Sanders Santos Saunders Sawyer
Schneider Schultz Scott Shaw Shelton Shepard Sherman Short Simmons Simpson Sims Singleton Slater Sloan Smith Snyder Sparks
Spencer Stanley Steele Stephens Stevens Stevenson Stewart Stokes Stone Strickland Strong Sullivan Summers Sutton Sweeney
Swanson Tate Taylor Terrell Terry Thomas Thompson Thornton Tillman Townsend Tran Tucker Turner Tyler Vance Vargas Vaughn
Wade Wagner Walker Wallace Walsh Walters Ward Warner Warren Washington Waters Watkins Watson Watts Weaver Webb Weber Webster
Welch Wells West Wheeler White Whitaker Wiggins Wilkins Williams Williamson Willis Wilson Winters Wise Wolf Wood Woods
Wright Yates York Young""".split()

_ONSETS = "b br c ch cl d dr f g gr h j k kh l m n p ph qu r s sh st t th tr tw v w x y z".split()
_VOWELS = "a a e e i i o o u u ay ee oo au ia io ai y".split()
_CODAS = ["", "", "", "", *"n r l s m k d ck nd rt th x sh v ll tt dd gg nn rr ss yy zz".split()]
_PREFIXES = ["De'", "Ja'", "Da'", "O'", "D'", "Mc", "Mac", "La", "De", "Van "]
_SUFFIXES = ["Jr.", "Jr", "Sr.", "II", "III", "IV"]


def _coined(rng: random.Random) -> str:
    syllables = (
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2, 3)))
    )
    return "".join(syllables).capitalize()


def _given_name(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.50:
        return rng.choice(FIRST)
    if draw < 0.55:
        return f"{rng.choice('ABCDEJKMRT')}.{rng.choice('BCDJKPT')}."
    if draw < 0.59:
        return rng.choice(_PREFIXES[:5]) + _coined(rng)
    if draw < 0.63:
        return f"{_coined(rng)}'{_coined(rng)}"
    if draw < 0.66:
        return f"{_coined(rng)}-{_coined(rng)}"
    return _coined(rng)


def _surname(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.60:
        return rng.choice(LAST)
    if draw < 0.66:
        return f"{rng.choice(LAST)}-{rng.choice(LAST)}"
    if draw < 0.72:
        return rng.choice(_PREFIXES[3:]) + _coined(rng)
    if draw < 0.74:
        return f"St. {rng.choice(LAST)}"
    return _coined(rng)


def invented_name(rng: random.Random) -> str:
    """A full name such as "Marcus Hale", "De'Quor Vance-Hill", "T.J. Okand III"."""
    name = f"{_given_name(rng)} {_surname(rng)}"
    return f"{name} {rng.choice(_SUFFIXES)}" if rng.random() < 0.06 else name
